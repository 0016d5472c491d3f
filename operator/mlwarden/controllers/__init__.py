"""What keeps the cluster as the policies say: generated objects, certificates, the release of held pods."""

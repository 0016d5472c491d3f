"""The embedded cluster: a throwaway, real Kubernetes for the demo and for every integration test.

| module | what |
| --- | --- |
| `build` | `binary(name)`: the pinned tools, from the cache or built from `tools/`; also `python -m mlwarden.embedded.build` |
| `cluster` | `EmbeddedCluster`: the control plane with fake nodes, users, tokens and an OCI registry, as a context manager |
| `kubelet` | `HostKubelet`: one more node, whose pods are mlwarden's own and run as host processes with their real service account tokens |
| `images` | `push_image`: tiny images with exactly the packages a test wants |
| `ownimage` | `image()`: mlwarden's own image, built with debootstrap and buildah (needs root); `publish` pushes and signs it |
| `trivydb` | `make_database`: a vulnerability database for Trivy, written in Python, with exactly the findings a test wants |
| `api`, `processes`, `pki`, `configuration`, `stages` | the parts: a client, children that die with us, certificates, files, kwok |
| `podworker`, `container`, `volumes` | the parts of the host node: the life of a pod, of a container, and what is mounted |

```python
with EmbeddedCluster(say=print) as cluster:
    cluster.create_namespace("experiments", labels={"mlwarden.io/profile": "experiment"})
    cluster.grant("alice", "edit", "experiments")
    cluster.kubectl("apply", "-f", "notebook.yaml", user="alice")
    cluster.restart_apiserver(kill=True)
```

Linux and macOS, no root (but for `ownimage`), no container engine, no access to a container registry.
"""

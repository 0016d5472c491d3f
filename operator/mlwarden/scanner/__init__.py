"""The scanner: answers what stands in the queue of `ImageEvidence` objects.

Two processes. The worker (`worker`) pulls and reads what anybody may have made, and has no token. The agent (`agent`) has a token and never
touches an image. Between them is a unix socket and a line of JSON each way (`protocol`).
"""

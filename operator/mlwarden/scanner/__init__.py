"""The scanner: answers what stands in the queue of `ImageEvidence` objects.

Three processes. The worker pulls and reads what anybody may have made, and has no token. The verifier says whose signatures an image
has, never reads a layer, and has no token, either (both are in `worker`). The agent (`agent`) has a token and never touches an image.
Between the agent and each of the others is a unix socket and a line of JSON each way (`protocol`).
"""

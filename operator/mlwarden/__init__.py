"""mlwarden: admission control for machine learning on Kubernetes."""

__version__ = "0.2.0"

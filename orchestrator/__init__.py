"""The hands: monitor, pipelines, drivers, web, command line and the local stand-ins."""

__version__ = "0.1.0"

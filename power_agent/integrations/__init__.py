"""Phases of frameworks' workloads, marked where the framework says that they begin and end.

Each module is for one framework, imports it, and is imported by none but its users; docs/integrations.md has examples.
"""

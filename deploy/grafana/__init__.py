"""The dashboard: `python -m deploy.grafana.generate` writes it."""

"""What operators start from: Prometheus, Grafana, clusters. Its Python writes the dashboard; nothing imports it."""

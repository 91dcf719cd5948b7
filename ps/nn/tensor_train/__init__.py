"""An embedding bag that is computed from small cores (TT-Rec), without the service."""

"""The fl domain's learners and its aggregation as an app of Flower: a ServerApp and a ClientApp."""

"""Other people's weights, labels and architectures made into a model of the store."""

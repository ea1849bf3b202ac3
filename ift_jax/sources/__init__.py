"""SeqIO data sources. Importing their modules imports TensorFlow; this package does not."""

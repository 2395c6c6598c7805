"""Built-in normalisations. Each module has the name of the normalisation that it registers."""

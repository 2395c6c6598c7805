"""Case work and folds on a Dask cluster: the extra ``[cluster]``."""

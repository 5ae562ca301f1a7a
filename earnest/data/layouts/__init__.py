"""Which clips there are: folders, lists, archives and tables in the layouts that public data sets have."""

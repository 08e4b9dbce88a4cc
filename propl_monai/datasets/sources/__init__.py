"""The data sets that can be read, one file each: from a folder on disk to what is in it. `registry` lists them."""

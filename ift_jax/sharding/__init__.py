"""How arrays are sharded over devices.

`mesh` builds the device mesh, `rules` holds the one table from logical axis names to mesh axes,
`batch_placement` puts batches on devices, `local` calls functions on each device's part, `fsdp`
multiplies by weights that are sharded over fsdp, and `trees` has functions of whole parameter
trees.
"""

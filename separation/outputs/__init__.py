"""The output files of a separation: their names, origins and writing, and the record of each input."""

"""Where sound comes from: data sets, mixing, and procedural synthesis."""

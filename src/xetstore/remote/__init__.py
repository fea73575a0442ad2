"""A Cas over HTTP: any server that speaks the protocol, the public Hub's included."""

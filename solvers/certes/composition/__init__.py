"""Networks of networks: how certified modules are composed into certified assemblies."""

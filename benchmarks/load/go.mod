module mlwarden.io/benchmarks/load

go 1.26.0

module mlwarden.io/tools/resident

go 1.26.0

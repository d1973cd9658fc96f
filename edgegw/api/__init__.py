"""The embedded HTTP server: connections and their deadlines, routes, request bodies in, rows and problems out."""

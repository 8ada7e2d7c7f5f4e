"""HTTP: routes, errors, the token, metrics, live updates and the HTML pages."""

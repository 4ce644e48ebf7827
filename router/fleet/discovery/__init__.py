"""Where workers come from: fixed addresses, a watched file, Kubernetes. Each source owns the workers it brought."""

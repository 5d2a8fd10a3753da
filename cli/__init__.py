"""The command line: one module per subcommand; the only place where files are wired to computation."""

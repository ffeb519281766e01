"""Many runs in one report: tables and figures."""

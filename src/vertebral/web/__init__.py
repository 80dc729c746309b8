"""Results in a browser on this computer: `view` serves one, `app` takes CTs, runs them and serves theirs."""

"""Results in the browser, on this computer only: `view` shows one, `app` runs uploaded CTs and shows theirs."""

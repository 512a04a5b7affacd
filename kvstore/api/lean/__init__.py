"""How are the hottest calls over HTTP/1 answered without a task each? All else is handed on."""

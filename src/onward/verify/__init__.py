"""Compare every gradient with what its rule claims: `onward verify`, and the same for rules and cells of one's own."""

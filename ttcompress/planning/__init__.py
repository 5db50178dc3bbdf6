"""From shapes, spectra and a recipe to a `Plan`: deciding, never doing. No torch here."""

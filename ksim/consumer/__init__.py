"""The public consumer on a driver port; it knows neither the simulator nor the real transport."""

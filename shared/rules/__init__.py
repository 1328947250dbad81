"""What an account may do. Knows neither HTTP nor SQL."""

"""Brings the functions to Google Cloud, tries them, and takes them back. Nothing imports it."""

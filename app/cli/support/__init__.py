"""What ``flask support-bundle`` gathers, and how it takes secrets out of it. One redactor for everything."""

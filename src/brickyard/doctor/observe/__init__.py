"""What is recorded while a script trains; nothing is judged here."""

"""PowerSensor3: voltage and current of up to four rails, 20 000 times a second."""

"""
What is deployed, started for real. The scripts here need root and build a small
Debian of their own; C{tests.deploy.in_systemd} runs inside of it.
"""

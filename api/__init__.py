"""The results service: takes chunks of scores, answers rates and candidates."""

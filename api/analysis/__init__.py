"""Reading results: rates, candidates, injections, scores and progress of runs."""

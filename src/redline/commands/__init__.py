"""One public function per verb: the only place that joins the rooms of the house."""

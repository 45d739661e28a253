package main

// setOf returns the set of the given fields.
func setOf(indices ...int) (s fieldSet) {
	for _, i := range indices {
		s = s.with(i, true)
	}
	return s
}

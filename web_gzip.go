package main

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// gzipWriters keeps writers, each of which has some 800 KiB of tables.
var gzipWriters = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

// compressGzip returns a compressed copy.
func compressGzip(body []byte) []byte {
	var b bytes.Buffer
	w := gzipWriters.Get().(*gzip.Writer)
	defer gzipWriters.Put(w)
	w.Reset(&b)
	w.Write(body) // writing to a buffer cannot fail
	w.Close()
	return bytes.Clone(b.Bytes()) // of its own length, since it may be cached
}

// acceptsGzip reports whether a client accepts gzip and does not prefer no encoding at all (RFC 9110 §12.5.3).
func acceptsGzip(r *http.Request) bool {
	gzipQ, identityQ, anyQ := -1.0, -1.0, -1.0
	for _, header := range r.Header["Accept-Encoding"] {
		for element := range strings.SplitSeq(header, ",") {
			coding, parameters, _ := strings.Cut(element, ";")
			switch coding = strings.TrimSpace(coding); {
			case strings.EqualFold(coding, "gzip"), strings.EqualFold(coding, "x-gzip"):
				gzipQ = max(gzipQ, qualityValue(parameters))
			case strings.EqualFold(coding, "identity"):
				identityQ = qualityValue(parameters)
			case coding == "*":
				anyQ = qualityValue(parameters)
			}
		}
	}
	if gzipQ < 0 {
		gzipQ = anyQ
	}
	return gzipQ > 0 && gzipQ >= identityQ
}

// qualityValue parses the parameters of an element, which are a weight or nothing (RFC 9110 §12.4.2). A malformed weight counts as
// 0: the client gets the encoding that everybody accepts.
func qualityValue(parameters string) float64 {
	if parameters == "" {
		return 1
	}
	name, value, _ := strings.Cut(strings.TrimSpace(parameters), "=")
	q, err := strconv.ParseFloat(value, 64)
	if err != nil || !strings.EqualFold(name, "q") || !(q >= 0 && q <= 1) {
		return 0
	}
	return q
}

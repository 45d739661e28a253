package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestAcceptsGzip(t *testing.T) {
	for header, want := range map[string]bool{
		"": false, "gzip": true, "GZIP": true, "x-gzip": true, "gzip, deflate, br, zstd": true, "br;q=1.0, gzip;q=0.8, *;q=0.1": true, "deflate, gzip;q=0.001": true,
		"gzip;q=0": false, "gzip; q=0.000": false, "gzip ; q=0, *": false, "*": true, "*;q=0": false, "identity": false, "identity;q=1, gzip;q=0.5": false,
		"identity;q=0.5, gzip": true, "identity;q=0, *;q=0": false, "br, deflate": false, "gzip;q=2": false, "gzip;q=x": false, "gzip;level=9": false, "notgzip": false, ",,": false,
		"gzip;q=NaN": false,
	} {
		if got := acceptsGzip(&http.Request{Header: http.Header{"Accept-Encoding": {header}}}); got != want {
			t.Errorf("%q: %t, want %t", header, got, want)
		}
	}
	if !acceptsGzip(&http.Request{Header: http.Header{"Accept-Encoding": {"br", "gzip"}}}) {
		t.Error("the second header is ignored")
	}
}

// TestNoGzip requests pages with gzip excluded.
func TestNoGzip(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	for _, path := range []string{"/", "/elsewhere", julietPage, julietPage + "/embed", statusPath + juliet + "/html"} {
		resp, _ := f.get(path, "Accept-Encoding", "gzip;q=0, br")
		if encoding := resp.Header.Get("Content-Encoding"); encoding != "" {
			t.Errorf("%s is encoded as %s", path, encoding)
		}
		if vary := resp.Header.Get("Vary"); path != statusPath+juliet+"/html" && vary != "Accept-Language, Accept-Encoding" || path == statusPath+juliet+"/html" && vary != "Accept-Encoding" {
			t.Errorf("%s: Vary: %s", path, vary)
		}
	}
}

// A bodyRecorder records the written slices themselves, not copies of them.
type bodyRecorder struct {
	httptest.ResponseRecorder
	bodies [][]byte
}

func (r *bodyRecorder) Write(p []byte) (int, error) {
	r.bodies = append(r.bodies, p)
	return len(p), nil
}

// TestCompressedOnce checks that a response that several clients share is compressed once.
func TestCompressedOnce(t *testing.T) {
	f := newFixture(t, nil)
	f.register("")
	f.says("b", "", "")
	handler := f.site.handler()
	for _, path := range []string{"/", "/?lang=de", "/elsewhere", julietPage, julietPage + ".svg", statusPath + juliet + "/html"} {
		var r bodyRecorder
		r.HeaderMap = make(http.Header)
		for range 2 {
			req := httptest.NewRequest("GET", path, nil)
			req.Header.Set("Accept-Encoding", "gzip")
			handler.ServeHTTP(&r, req)
		}
		if r.Header().Get("Content-Encoding") != "gzip" || len(r.bodies) != 2 || &r.bodies[0][0] != &r.bodies[1][0] {
			t.Errorf("%s is compressed again", path)
		}
	}
}

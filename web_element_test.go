package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
)

// TestElement checks how the script with the custom element is served, its size, and its colors.
func TestElement(t *testing.T) {
	f := newFixture(t, nil)
	resp, body := f.get(elementPath)
	source, err := os.ReadFile("dist/npm/webstatus.js")
	if err != nil {
		t.Fatal(err)
	}
	if body != string(source) || resp.Header.Get("Content-Type") != "text/javascript; charset=utf-8" || resp.Header.Get("Access-Control-Allow-Origin") != "*" ||
		resp.Header.Get("Cache-Control") != cachePlain[0] {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	if again, _ := f.get(elementPath, "If-None-Match", resp.Header.Get("ETag")); again.StatusCode != http.StatusNotModified {
		t.Errorf("again: %s", again.Status)
	}
	_, compressed := f.get(elementPath, "Accept-Encoding", "gzip")
	if _, err := gzip.NewReader(strings.NewReader(compressed)); err != nil || len(compressed) > 4<<10 {
		t.Errorf("%d bytes compressed: %v", len(compressed), err)
	}
	for state, p := range stateColors {
		if pair := "light-dark(" + hexColor(p.light) + ", " + hexColor(p.dark) + ")"; !strings.Contains(body, pair) {
			t.Errorf("%s: no %s", state, pair)
		}
	}
}

// TestNPMPackage checks that the npm package has the version of the program and no second copy of the script.
func TestNPMPackage(t *testing.T) {
	content, err := os.ReadFile("dist/npm/package.json")
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		Version, Main, Exports string
		Files                  []string
	}
	if err := json.Unmarshal(content, &manifest); err != nil {
		t.Fatal(err)
	}
	if manifest.Version != version || manifest.Main != "webstatus.js" || manifest.Exports != "./webstatus.js" || strings.Join(manifest.Files, " ") != "webstatus.js" {
		t.Errorf("%+v", manifest)
	}
	if packed, err := os.ReadFile("dist/npm/" + manifest.Main); err != nil || !bytes.Equal(packed, []byte(elementSource)) {
		t.Errorf("the package has another script than the program: %v", err)
	}
}

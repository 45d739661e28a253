package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

const openStream = `<?xml version='1.0'?><stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:component:accept' id='1'>`

func frames(f *framer) (all []string, err error) {
	for {
		fr, err := f.next()
		if err != nil {
			return all, err
		}
		data := string(fr.data)
		if fr.truncated {
			data = "truncated:" + data
		}
		all = append(all, data)
	}
}

func TestFramer(t *testing.T) {
	tests := []struct {
		name, in string
		want     []string
		err      error
	}{
		{"empty elements", `<a/><b x="1"/>`, []string{`<a/>`, `<b x="1"/>`}, io.EOF},
		{"nested", `<a><b><a>x</a></b></a><c></c>`, []string{`<a><b><a>x</a></b></a>`, `<c></c>`}, io.EOF},
		{"white space keepalive", " \n<a/>\n\n<b/> ", []string{`<a/>`, `<b/>`}, io.EOF},
		{"gt and slash in quotes", `<a x='/>' y=">"><b z="/a>"/></a>`, []string{`<a x='/>' y=">"><b z="/a>"/></a>`}, io.EOF},
		{"slash at the end of a value", `<a x='1'/><a x="/"></a>`, []string{`<a x='1'/>`, `<a x="/"></a>`}, io.EOF},
		{"cdata", `<a><![CDATA[</a>]]]></a>`, []string{`<a><![CDATA[</a>]]]></a>`}, io.EOF},
		{"comment", `<a><!-- </a> -- > --></a><!-- <x> --><b/>`, []string{`<a><!-- </a> -- > --></a>`, `<b/>`}, io.EOF},
		{"processing instruction", `<a><?x </a> ?></a>`, []string{`<a><?x </a> ?></a>`}, io.EOF},
		{"end of stream", `<a/></stream:stream><b/>`, []string{`<a/>`}, errStreamClosed},
		{"end of file in an element", `<a/><b>`, []string{`<a/>`}, io.ErrUnexpectedEOF},
		{"end of file in a declaration", `<a/><!`, []string{`<a/>`}, io.ErrUnexpectedEOF},
		{"end of file in a CDATA section", `<a/><b><![CDA`, []string{`<a/>`}, io.ErrUnexpectedEOF},
		{"too large", `<a/><b from='x'>` + strings.Repeat("<c>y</c>", 20) + `</b><d/>`,
			[]string{`<a/>`, `truncated:<b from='x'>`, `<d/>`}, io.EOF},
		{"end tag of another element", `<a/><b><c></b></c><d/>`, []string{`<a/>`}, errMalformed},
		{"end tag missing", `<b><c></b><d/>`, nil, errMalformed},
		{"end tag missing in a skipped element", `<b>` + strings.Repeat("<c>y</c>", 20) + `<c></b><d/>`, nil, errMalformed},
		{"end tag missing in a deep element", `<b>` + strings.Repeat("<c>", 2*maxMatching) + strings.Repeat("</c>", 2*maxMatching-1) + `</b><d/>`, nil, errMalformed},
		{"end tag with a longer name", `<b></bc>`, nil, errMalformed},
		{"end tag with white space", `<a:b></a:b
>`, []string{"<a:b></a:b\n>"}, io.EOF},
		{"quote missing", `<a x='1><b/><c y='2'/>`, nil, errMalformed},
		{"gt missing", `<a <b/>`, nil, errMalformed},
		{"gt missing after a name", `<a/><a<b/>`, []string{`<a/>`}, errMalformed},
		{"lt in place of a name", "<\x00<<>>&&&", nil, errMalformed},
		{"start tag too large", `<b from='` + strings.Repeat("y", 200) + `'></b><d/>`, []string{`truncated:`, `<d/>`}, io.EOF},
	}
	for _, tt := range tests {
		for reads, wrap := range map[string]func(io.Reader) io.Reader{
			"byte by byte": iotest.OneByteReader,
			"halves":       iotest.HalfReader,
		} {
			t.Run(tt.name+"/"+reads, func(t *testing.T) {
				f := newFramer(wrap(strings.NewReader(openStream+tt.in)), 100)
				if _, err := f.header(); err != nil {
					t.Fatal(err)
				}
				got, err := frames(f)
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Error(diff)
				}
				if !errors.Is(err, tt.err) {
					t.Errorf("error %v, want %v", err, tt.err)
				}
			})
		}
	}
}

func TestFramerRefusesDoctype(t *testing.T) {
	_, err := frames(newFramer(strings.NewReader(`<!DOCTYPE x [<!ENTITY a "b">]>`), 100))
	if err == nil || !strings.Contains(err.Error(), "document type") {
		t.Errorf("error %v", err)
	}
}

func TestAttribute(t *testing.T) {
	tests := []struct{ tag, want string }{
		{`<presence from='a@b/c' to="d">`, "a@b/c"},
		{`<presence to="d from='x'" from = "a@b" />`, "a@b"},
		{"<iq\n\tfrom='a'>", "a"},
		{`<presence xfrom='1' to='2'>`, ""},
		{`<presence>`, ""},
		{`<presence from>`, ""},
		{`<presence from='`, ""},
	}
	for _, tt := range tests {
		if got := string(attribute([]byte(tt.tag), "from")); got != tt.want {
			t.Errorf("attribute(%q) = %q, want %q", tt.tag, got, tt.want)
		}
	}
}

// FuzzFramer compares the framer with encoding/xml: for each well-formed element that encoding/xml finds, the framer must return the
// same bytes.
func FuzzFramer(f *testing.F) {
	for _, seed := range []string{
		`<presence from='a@b/c'><show>away</show></presence>`,
		`<a x='>' y="'"><![CDATA[]]>]]&gt;</a>`,
		`<a><!-- - --></a>`, `<a/><b/>`, `<a><?x y?></a>`, ` <a/> `, `<a><b/></a`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		d := xml.NewDecoder(bytes.NewReader(in))
		var want []string
		for depth, start := 0, int64(0); ; {
			at := d.InputOffset()
			tok, err := d.Token()
			if err != nil {
				break
			}
			switch tok.(type) {
			case xml.Directive:
				return
			case xml.StartElement:
				if depth == 0 {
					start = at
				}
				depth++
			case xml.EndElement:
				if depth--; depth == 0 {
					want = append(want, string(in[start:d.InputOffset()]))
				}
			}
		}
		got, _ := frames(newFramer(iotest.HalfReader(bytes.NewReader(in)), 1<<20))
		if len(got) < len(want) {
			t.Fatalf("%q: got %q, want %q", in, got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("%q: got %q, want %q", in, got[i], want[i])
			}
		}
	})
}

package main

import (
	"encoding/json"
	"encoding/xml"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A doapResource is an element that refers to something by its address.
type doapResource struct {
	Address string `xml:"http://www.w3.org/1999/02/22-rdf-syntax-ns# resource,attr"`
}

// A doap is what doap.xml says (XEP-0453).
type doap struct {
	XMLName  xml.Name     `xml:"http://www.w3.org/1999/02/22-rdf-syntax-ns# RDF"`
	Name     string       `xml:"Project>name"`
	Homepage doapResource `xml:"Project>homepage"`
	OS       []string     `xml:"Project>os"`
	Supports []struct {
		XEPs []struct {
			XEP     doapResource `xml:"xep"`
			Status  string       `xml:"status"`
			Version string       `xml:"version"`
			Since   string       `xml:"since"`
		} `xml:"https://linkmauve.fr/ns/xmpp-doap# SupportedXep"`
	} `xml:"Project>implements"`
}

func readDOAP(t *testing.T) (d doap) {
	t.Helper()
	content, err := os.ReadFile("doap.xml")
	if err == nil {
		err = xml.Unmarshal(content, &d)
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// namespaceXEPs names the XEP that defines each namespace in the code; those of RFC 6120 have none.
var namespaceXEPs = map[string]string{
	nsComponent: "0114", nsClient: "", nsStanzas: "", "urn:ietf:params:xml:ns:xmpp-streams": "", nsRegister: "0077", nsForm: "0004", nsDiscoInfo: "0030", nsDiscoItem: "0030",
	nsPing: "0199", nsDelay: "0203", nsOldDelay: "0091", nsIdle: "0319", nsVersion: "0092", nsLast: "0012", nsVCard: "0054", nsServerInfo: "0157",
	nsNick: "0172", nsAvatarMetadata: "0084", nsAvatarData: "0084", nsAvatarUpdate: "0153", nsPubSub: "0060", nsPubSubEvent: "0060", nsCommands: "0050",
	nsActivity: "0108", nsMood: "0107", nsTune: "0118", nsPrivilege: "0356", nsPrivilegeOld: "0356",
	"http://jabber.org/protocol/admin": "0133", "http://jabber.org/protocol/caps": "0115", nsMUC: "0045", nsDataPolicy: "0504", "urn:xmpp:hints": "0334", nsReceipts: "0184",
}

var (
	namespacePattern = regexp.MustCompile(`(jabber:[a-z]+(:[a-z]+)*|urn:(xmpp|ietf)(:[a-z0-9.#-]+)+|http://jabber\.org/[a-z0-9#/_-]+|vcard-temp(:x:update)?)`)
	xepPattern       = regexp.MustCompile(`XEP-(\d{4})`)
)

// TestDOAP checks that doap.xml lists exactly the XEPs that the code names, among them those of all namespaces in the code and of all
// features that service discovery names.
func TestDOAP(t *testing.T) {
	listed := make(map[string]bool)
	for _, implements := range readDOAP(t).Supports {
		for _, x := range implements.XEPs {
			number := strings.TrimSuffix(strings.TrimPrefix(x.XEP.Address, "https://xmpp.org/extensions/xep-"), ".html")
			if !slices.Contains([]string{"complete", "partial"}, x.Status) || !regexp.MustCompile(`^\d+(\.\d+)+$`).MatchString(x.Version) || x.Since == "" || listed[number] {
				t.Errorf("%+v is incomplete or listed twice", x)
			}
			listed[number] = true
		}
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{"0453": true} // by doap.xml itself
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range xepPattern.FindAllStringSubmatch(string(source), -1) {
			named[match[1]] = true
		}
		for _, namespace := range namespacePattern.FindAllString(string(source), -1) {
			if xep, ok := namespaceXEPs[namespace]; !ok || xep != "" && !listed[xep] {
				t.Errorf("%s: doap.xml does not list XEP-%s of %s", file, xep, namespace)
			}
		}
	}
	for _, feature := range features {
		if !listed[namespaceXEPs[strings.TrimSuffix(feature, "+notify")]] {
			t.Errorf("doap.xml does not list the XEP of the feature %s", feature)
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(named)), slices.Sorted(maps.Keys(listed))); diff != "" {
		t.Errorf("XEPs in the code and in doap.xml: %s", diff)
	}
}

// TestSoftwareList checks the entry for the software list of xmpp.org. By the rules of that list, the URL and the platforms of an entry
// with a DOAP file are only in that file.
func TestSoftwareList(t *testing.T) {
	content, err := os.ReadFile("docs/software-list.json")
	if err != nil {
		t.Fatal(err)
	}
	var entry map[string]any
	if err := json.Unmarshal(content, &entry); err != nil {
		t.Fatal(err)
	}
	d := readDOAP(t)
	if d.Homepage.Address == "" || !slices.Contains(d.OS, "Linux") {
		t.Errorf("doap.xml has the URL %q and the platforms %q", d.Homepage.Address, d.OS)
	}
	want := map[string]any{"name": d.Name, "url": nil, "doap": d.Homepage.Address + "/doap.xml", "platforms": []any{}, "categories": []any{"component"}}
	if diff := cmp.Diff(want, entry); diff != "" {
		t.Error(diff)
	}
}

// TestLogo checks that docs/logo.svg is the avatar of the component.
func TestLogo(t *testing.T) {
	want := string(logo().writeSVG(themeLight, logo().height))
	if *update {
		if err := os.WriteFile("docs/logo.svg", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile("docs/logo.svg"); err != nil || string(got) != want {
		t.Errorf("docs/logo.svg differs: %v", err)
	}
}

// TestThreatModel checks that every test in SECURITY.md exists.
func TestThreatModel(t *testing.T) {
	content, err := os.ReadFile("SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	for _, name := range files {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		tests.Write(source)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)`").FindAllSubmatch(content, -1)
	if len(named) == 0 {
		t.Error("no tests are named")
	}
	for _, name := range named {
		if !strings.Contains(tests.String(), "\nfunc "+string(name[1])+"(") {
			t.Errorf("there is no %s", name[1])
		}
	}
}

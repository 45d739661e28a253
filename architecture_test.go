package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/tools/go/packages"
)

// layers lists the layers of the package from lowest to highest, with the layers that each may use besides itself.
var layers = []struct {
	name string
	uses []string
}{
	{"core", nil},
	{"db", []string{"core"}},
	{"registry", []string{"core", "db"}},
	{"xmpp", []string{"core", "registry"}},
	{"web", []string{"core", "registry"}},
	{"ops", []string{"core", "db", "registry", "xmpp", "web"}},
	{"cmd", []string{"core", "db", "registry", "xmpp", "web", "ops"}},
}

// layerOf returns the layer of a file, which its name starts with. Files without a prefix are the core; main.go belongs to the
// commands.
func layerOf(file string) string {
	name := strings.TrimSuffix(filepath.Base(file), ".go")
	prefix, _, _ := strings.Cut(name, "_")
	for _, l := range layers {
		if prefix == l.name {
			return l.name
		}
	}
	if name == "main" {
		return "cmd"
	}
	return "core"
}

// loadedPackage type-checks the package without its tests, once.
var loadedPackage = sync.OnceValues(func() (*packages.Package, error) {
	const mode = packages.NeedName | packages.NeedFiles | packages.NeedCompiledGoFiles | packages.NeedImports | packages.NeedTypes |
		packages.NeedSyntax | packages.NeedTypesInfo
	loaded, err := packages.Load(&packages.Config{Mode: mode}, ".")
	if err == nil && (len(loaded) != 1 || len(loaded[0].Errors) > 0) {
		err = fmt.Errorf("the package cannot be loaded: %v", loaded[0].Errors)
	}
	if err != nil {
		return nil, err
	}
	return loaded[0], nil
})

func loadPackage(t *testing.T) *packages.Package {
	t.Helper()
	p, err := loadedPackage()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestLayers checks that each layer uses only its permitted layers, as separate packages would enforce.
func TestLayers(t *testing.T) {
	p := loadPackage(t)
	var wrong []string
	for ident, used := range p.TypesInfo.Uses {
		if used.Pkg() != p.Types || used.Name() == "_" {
			continue
		}
		at, defined := p.Fset.Position(ident.Pos()), p.Fset.Position(used.Pos())
		from, to := layerOf(at.Filename), layerOf(defined.Filename)
		for _, l := range layers {
			if l.name == from && from != to && !slices.Contains(l.uses, to) {
				wrong = append(wrong, fmt.Sprintf("%s:%d: %s must not use %s, which is in %s (%s)",
					filepath.Base(at.Filename), at.Line, from, used.Name(), filepath.Base(defined.Filename), to))
			}
		}
	}
	slices.Sort(wrong)
	if len(wrong) > 0 {
		t.Errorf("%d forbidden references between layers:\n%s", len(wrong), strings.Join(wrong, "\n"))
	}
}

// Limits on complexity.
const (
	maxMethods       = 40 // of one type
	maxFunctionLines = 60
)

func TestMethodCounts(t *testing.T) {
	p := loadPackage(t)
	for _, name := range p.Types.Scope().Names() {
		named, ok := p.Types.Scope().Lookup(name).Type().(*types.Named)
		if ok && named.NumMethods() > maxMethods {
			t.Errorf("%s has %d methods, more than %d", name, named.NumMethods(), maxMethods)
		}
	}
}

func TestFunctionLengths(t *testing.T) {
	p := loadPackage(t)
	for _, file := range p.Syntax {
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			first, last := p.Fset.Position(f.Pos()), p.Fset.Position(f.End())
			if n := last.Line - first.Line + 1; n > maxFunctionLines {
				t.Errorf("%s:%d: %s has %d lines, more than %d", filepath.Base(first.Filename), first.Line, f.Name.Name, n, maxFunctionLines)
			}
		}
	}
}

// ownedFields are the fields of an entry and of its extras that the registry alone may assign; the board publishes them.
var ownedFields = []string{"user", "resources", "link", "failed", "profile", "lastSeen"}

// TestOwnership checks that no other code changes what the registry knows of a user.
func TestOwnership(t *testing.T) {
	p := loadPackage(t)
	board := func(pos token.Pos) bool { return filepath.Base(p.Fset.Position(pos).Filename) == "board.go" }
	for _, file := range p.Syntax {
		name := filepath.Base(p.Fset.Position(file.Pos()).Filename)
		if name == "board.go" || layerOf(name) == "registry" {
			continue
		}
		ast.Inspect(file, func(n ast.Node) bool {
			assignment, ok := n.(*ast.AssignStmt)
			if !ok {
				return true
			}
			for _, left := range assignment.Lhs {
				selector, ok := left.(*ast.SelectorExpr)
				if !ok {
					continue
				}
				field, ok := p.TypesInfo.Uses[selector.Sel].(*types.Var)
				if ok && field.IsField() && board(field.Pos()) && slices.Contains(ownedFields, field.Name()) {
					t.Errorf("%s assigns %s, which belongs to the registry", p.Fset.Position(left.Pos()), field.Name())
				}
			}
			return true
		})
	}
}

package main

import "context"

func writeSVG(_ *renderer, spec *renderSpec, views []view) ([]byte, error) {
	d := badge(summary(spec, views), spec.options.imageOptions)
	return d.writeSVG(spec.options.theme, spec.options.height(d)), nil
}

// writePNG writes an image with the texts that the embedded fonts can draw: a label of a state in another script is in English,
// other texts are left out.
func writePNG(r *renderer, spec *renderSpec, views []view) ([]byte, error) {
	english, options := r.languages.english(), spec.options.imageOptions
	for i := range views {
		v := &views[i]
		if !canDraw(v.Label) {
			v.Label = v.labelIn(english)
		}
		for _, s := range []*string{&v.Message, &v.Nick, &v.LastActive, &v.JID} {
			if !canDraw(*s) {
				*s = ""
			}
		}
	}
	if !canDraw(options.label) {
		options.label, options.labelled = "", false
	}
	return drawPNG(spec.ctx, badge(summary(spec, views), options), options)
}

// drawPNG encodes a drawing in the size and theme of the options.
func drawPNG(ctx context.Context, d *drawing, options imageOptions) ([]byte, error) {
	return d.writePNG(ctx, options.theme, options.height(d))
}

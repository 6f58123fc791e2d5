package inputs

import (
	"regexp"
	"strings"
)

// Comment selects whether a comment on the pull request shows the result. The zero value does not.
type Comment struct {
	On   bool
	Name string // distinguishes the comments of jobs with the same ID
}

var commentName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 ._:/@+-]{0,99}$`)

func validateComment(spec *BuildSpec, in Build, _ Env) error {
	switch strings.ToLower(in.Comment) {
	case "", "false":
		return nil
	case "true":
		spec.Report.Comment = Comment{On: true}
		return nil
	}
	if !commentName.MatchString(in.Comment) {
		return Errorf("comment", in.Comment, "must be true, false, or a name of at most 100 letters, digits, spaces and "+
			"._:/@+-, for example node-22")
	}
	spec.Report.Comment = Comment{true, in.Comment}
	return nil
}

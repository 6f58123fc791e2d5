ln one two
